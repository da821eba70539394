"""A browser as an environment: Chromium driven by Playwright."""
