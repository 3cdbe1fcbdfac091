"""The serving process: engines, sessions, scheduler, metrics, gRPC and HTTP edges, client and CLI."""
