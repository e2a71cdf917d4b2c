"""What deploying the server needs: the installer, and the generator of dashboards and rules. Not part of the wheel."""
