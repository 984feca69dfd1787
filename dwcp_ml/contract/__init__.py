"""The data contract, the four models' signatures, and the bundle: typed, pure, knows nobody."""
