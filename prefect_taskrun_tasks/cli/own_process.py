"""A process in which there is nothing but the command ``prefect-taskrun``, as opposed to a program that calls it."""

#: The object of a command's context in such a process
OWN_PROCESS = object()
