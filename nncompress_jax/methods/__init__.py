"""Methods: functions from variables to variables, one a file."""
