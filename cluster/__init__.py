"""Placement and supervision of runs: recipes, the driver, its processes, Ray, jobs."""

from cluster.packages import import_own_packages

# Call this before all other imports of our modules, because directories with packages of the same
# names may be on the path.
import_own_packages()
