"""The code that gateway and worker share: values, messages, settings, and the HTTP and broker plumbing."""
