"""OSWorld's tasks on a guest that speaks its HTTP interface: a virtual machine, or an X desktop of ours."""
