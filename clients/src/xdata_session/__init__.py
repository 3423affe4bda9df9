"""Sessions of an xData server: `xdata_session.client.ApiV2`."""
