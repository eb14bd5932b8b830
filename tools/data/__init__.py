"""The embedded data sets, made from fonts and icon sets, the list of checksums, and coloured things to try.

``trace_glyphs``         fonts -> pen strokes, data/glyphs_strokes.npz
``draw_glyphs``          pen strokes -> drawings, data/glyphs.npz
``glyphs``               the parts of these two
``make_icons``           icon sets -> data/icons.npz; ``icon_ideas.toml`` says which names mean which idea
``measure_difficulty``   Glyphs beside Omniglot: the table of data/glyphs.md
``draw_things``          a folder of coloured things, in place of photographs of your own
``checksums``            the SHA-256 of all data and weights, data/checksums.json
"""
