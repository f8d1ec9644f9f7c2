"""What gateway and worker say to each other, and the words both use."""
