"""What both xData packages stand on: HTTP (`transport`), JSON-RPC (`rpc`) and the errors (`errors`)."""
