"""The parts of the glyph builder: fonts -> pen strokes (trace_glyphs.py) -> drawings (draw_glyphs.py)."""
