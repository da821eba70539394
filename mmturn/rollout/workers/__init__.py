"""Environments in worker processes, on this machine or by Ray on several, behind the seam that all environments share.

``remote`` stands in for an environment, ``pool`` starts workers and replaces those that fail, ``process`` and
``ray_actor`` reach one, ``service`` answers inside it. Nothing is imported before it is used, since workers import this
package too.
"""
