"""Side by side with other libraries: ``python -m benchmarks``. Timings live here only, never in tests."""
