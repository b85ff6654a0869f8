"""The process: several of them, preemption, the watchdog, and where the time goes."""
