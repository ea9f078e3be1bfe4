"""What Halvard costs, as ratios against a peer or a limit in the same run: several rounds, medians, spreads shown."""
