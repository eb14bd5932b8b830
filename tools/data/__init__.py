"""The embedded data sets, made from fonts and icon sets, and the list of checksums.

``trace_glyphs``         fonts -> pen strokes, data/glyphs_strokes.npz
``draw_glyphs``          pen strokes -> drawings, data/glyphs.npz
``glyphs``               the parts of these two
``make_icons``           icon sets -> data/icons.npz; ``icon_ideas.toml`` says which names mean which idea
``measure_difficulty``   Glyphs beside Omniglot: the table of data/glyphs.md
``checksums``            the SHA-256 of all data and weights, data/checksums.json
"""
