"""Draw figures and format numbers in pages: JavaScript modules that several views use."""
