"""What knows nothing of learning: files written whole, locks, interrupts, devices, threads, memory."""
