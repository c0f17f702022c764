"""The use cases: one file per command, each with one public function that takes the command's settings.

A command composes the packages below and reports progress; it parses no options and prints nothing. May import every
package below `console`, but no other command.
"""
