"""What every training run needs, whatever it trains: settings, loop, states, measures, the denoising loss."""
