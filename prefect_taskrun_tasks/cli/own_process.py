"""What marks a process that runs only the command ``prefect-taskrun``, and no program that calls it."""

#: The object of a command's context in such a process
OWN_PROCESS = object()
