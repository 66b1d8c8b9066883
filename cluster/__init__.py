"""Where a run runs: command line, recipes, Ray, jobs. The only package that imports ray."""

from cluster.packages import import_own_packages

# Before any other import of ours: folders with packages of the same names may be on the path.
import_own_packages()
