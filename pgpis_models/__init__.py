"""The science of the pack: methods, injections and the diffusers binding, with nothing of the host."""
