"""The command line: arguments become calls, and what they return becomes lines on the terminal."""
