"""U-Nets and the encoder that shares their trunk."""
