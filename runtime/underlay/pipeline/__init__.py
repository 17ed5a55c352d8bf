"""The one order of operations, written once as coroutines against `Ports`. No httpx types, no event loop, no
async generators."""
