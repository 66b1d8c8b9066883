"""Write the dashboard's page about runs, with its data, as one HTML file."""
