"""Where a run runs: recipes, the driver, its processes, Ray, jobs."""

from cluster.packages import import_own_packages

# Before any other import of ours: folders with packages of the same names may be on the path.
import_own_packages()
