"""What a participant decides for itself before it signs an order: volumes, prices; floating point is at home here."""
