"""Write the dashboard's page about runs, including the runs' data, as one HTML file."""
