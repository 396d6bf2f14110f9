"""Seconds of a budget."""

from __future__ import annotations

from cnnbench.shipping.clock import Clock


def test_time_that_was_spent_before_counts() -> None:
    clock = Clock(100.0, 5.0, 30.0, lambda: 15.0)
    assert (clock.used, clock.left) == (40.0, 60.0)
    assert clock.fits(50.0, reserved=10.0)
    assert not clock.fits(50.1, reserved=10.0)


def test_what_takes_no_time_fits_always() -> None:
    assert Clock(1.0, 0.0, 2.0, lambda: 0.0).fits(0.0, reserved=10.0)
