"""What operations do from the command line: compare, repair, rebuild, look after the parts, show a demo."""
