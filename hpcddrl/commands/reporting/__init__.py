"""What `report` puts on its page: numbers, findings, drawings of jobs, and the page itself."""
