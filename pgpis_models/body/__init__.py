"""The articulated body that is drawn, not photographed: skeleton, surface, charts, camera and what shows where."""
