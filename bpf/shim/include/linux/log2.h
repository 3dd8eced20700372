/* Empty on purpose: BCC includes it, the probe needs nothing of it. */
