"""The data contract, the four models' signatures, and the bundle: typed and pure."""
