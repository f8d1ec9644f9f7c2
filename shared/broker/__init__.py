"""The RabbitMQ code that gateways and workers share: connections, queues, and bounds on what is delivered."""
