"""Poses of people in 2D: joints, formats, files, drawings, edits and detection."""
