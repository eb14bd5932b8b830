"""The parts of the glyph builder: fonts -> pen strokes (trace_glyphs.py) -> drawings (draw_glyphs.py).

``scripts``      which letters of which scripts are traced, and their splits
``fonts``        letters of a font as filled shapes
``skeleton``     filled shapes -> one-pixel skeletons
``graph``        skeletons as graphs, cleaned
``strokes``      cleaned graphs -> pen strokes
``curves``       polylines: length, spacing, smoothing
``letters``      the file of pen strokes
``lookalikes``   letters that look alike, of which one is kept
``hands``        how a person's hand writes a letter
``raster``       strokes -> pixels
"""
