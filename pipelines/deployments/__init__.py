"""What `marco deploy` shows and asks beside `components.endpoint_pusher`."""
