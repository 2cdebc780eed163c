"""Nodes of the menu PGPIS/pose: poses found, read, drawn, edited, posed in 3D, chosen, followed and scored."""
