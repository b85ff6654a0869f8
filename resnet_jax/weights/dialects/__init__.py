"""Translation of the tensor names and layouts of other libraries, one file per library."""
