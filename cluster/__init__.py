"""Placement and supervision of runs: recipes, the driver, its processes, Ray, jobs."""

from cluster.packages import import_own_packages

# This comes before all other imports of our modules: directories with packages of the same names
# may be on the path.
import_own_packages()
