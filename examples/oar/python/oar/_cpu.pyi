"""Empty: importing it raises ImportError on a CPU that this build is not for."""
