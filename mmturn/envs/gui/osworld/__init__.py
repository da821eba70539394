"""OSWorld's tasks on a guest that speaks its HTTP interface: a virtual machine of OSWorld's, or an X desktop of ours."""
