"""The edges: each stage loads its inputs, calls one library function, and writes its outputs.

Every module here has `run(params, layout, …) -> list[Path]`, which returns what it wrote.
"""
