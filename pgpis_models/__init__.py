"""The science of the pack: methods, injections, and the diffusers binding. Imports nothing of the host."""
