"""RabbitMQ as gateways and workers both use it: connections, queues, and bounds on what it delivers."""
