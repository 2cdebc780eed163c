"""What lies on a disk: pictures, small files within bounds, published weights, and what a pose transfer needs of them."""
