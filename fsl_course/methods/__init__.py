"""The algorithms, one file each: ``from fsl_course.methods.prototypical import PrototypicalNetwork``."""
