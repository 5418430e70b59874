"""Images: composed from cut-outs, or decoded from photographs; splits of them; seeds."""
