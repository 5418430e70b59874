"""What people read: statistics, printed tables, figures and the page, from stored results."""
